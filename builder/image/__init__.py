"""The builder image and the final image: their files, what builds them, and how they get to other machines."""
