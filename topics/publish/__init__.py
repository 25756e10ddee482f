"""Publishing: outcomes, receipt and progress leave together, in one transaction or in an order that loses nothing."""
