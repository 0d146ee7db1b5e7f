"""The centre of the three hosts: it merges what edges bring, and never sees a terminal."""
