"""What is there to work on? A recorded run: who reads what, where tensors are held, what is constant."""
