"""From ranked lists to what a customer sees: products with reasons, e-mails, and the payloads of the services that send them."""
