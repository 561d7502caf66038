"""What two or more other rooms use; nothing here depends on models or data sets."""
