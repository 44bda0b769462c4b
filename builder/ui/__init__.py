"""What a person sees: events become lines, errors become screens, plans become words. Nothing here changes anything."""
