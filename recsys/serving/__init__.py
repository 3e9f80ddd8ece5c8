"""Answers for people: an advisor, the endpoint of MLflow, the nightly batch in this process or on Spark."""
