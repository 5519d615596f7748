"""What a server process and its detector process send each other."""
