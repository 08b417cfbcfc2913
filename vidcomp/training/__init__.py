"""The trainer, and the tasks that it trains."""
