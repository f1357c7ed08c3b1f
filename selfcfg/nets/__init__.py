"""Networks: a Topology turned into named parts."""
