"""Which devices serve a load: requests per second against objectives of latency, price and power."""
