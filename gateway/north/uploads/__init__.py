"""Build servers that push: uploads that can be resumed, and what says that it is time to look."""
