"""The miniature's weights (`digits/`) and the code that trained them (`make zoo`)."""
