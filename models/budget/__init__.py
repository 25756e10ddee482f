"""What calls cost and may cost: prices, estimates, a day's budget."""
