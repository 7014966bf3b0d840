"""What TIMAR is measured against: DualTalk, and baselines that do not listen."""
