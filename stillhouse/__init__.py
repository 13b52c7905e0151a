"""An event-sourced artifact registry that takes a teacher to a signed Core ML release."""
