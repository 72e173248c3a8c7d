"""What drivers of A/B devices share: layout, records, switching, writing."""
