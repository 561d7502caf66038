"""How the network is computed: the types of its numbers, compilation."""
