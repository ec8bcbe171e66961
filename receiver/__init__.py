"""The process that keeps a copy of a pool that another host writes."""
