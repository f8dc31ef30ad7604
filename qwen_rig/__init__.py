"""The pure core: what is wanted (stacks, rules), what differs (plan), how it is said (render). Knows no SSH."""
