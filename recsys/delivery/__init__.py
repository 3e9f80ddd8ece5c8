"""From ranked lists to what a customer sees: products with reasons, e-mails, and the payloads of services that send them."""
