"""What tests share: factories of data, models and bags, and the systems that tests run against."""
