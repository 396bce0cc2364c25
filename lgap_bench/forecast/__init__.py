"""What a cell will cost, before it is measured: network calls, seconds, memory, disk."""
