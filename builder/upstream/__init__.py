"""Another spark-build's server, seen from here: what it has, what is fetched from it, what is brought to it."""
