"""Every setting that a user can write: typed, documented, validated."""
