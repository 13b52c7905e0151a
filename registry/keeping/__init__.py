"""What is kept, what may go, and how what is gone comes back."""
