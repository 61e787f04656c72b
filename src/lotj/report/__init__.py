"""What people look at: saliency, plots, videos and the HTML report."""
