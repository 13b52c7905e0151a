"""The process behind `still watch`, and the inbox that it empties."""
