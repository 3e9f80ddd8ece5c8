"""What is known, and the one place where it is cut in time: events, products, customers, queries, pools."""
