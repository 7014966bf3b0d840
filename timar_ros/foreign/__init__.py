"""What other packages give, without ROS: audio, frames, head poses, pictures and faces; and what they take (VMC)."""
