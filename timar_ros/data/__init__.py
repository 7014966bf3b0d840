"""Audio files, motion files and data sets on disk. Nothing here needs ROS."""
