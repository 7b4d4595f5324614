"""Looking at everything that is stored, mending what can be derived, and moving out of the way what is not right."""
