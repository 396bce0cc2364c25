"""What is refused by name, with its reason; free of torch, so that a config is refused at once."""

NOT_AUTOATTACK = (
    "torchattacks.AutoAttack is not AutoAttack: its APGD and FAB run 10 steps instead of 100, its Square another "
    "schedule; use attack=autoattack_standard or attack=autoattack_rand"
)
