"""What is wrong with detections: the kinds of errors, what each costs, and the pictures with the worst of them."""
