"""What the codes of a variational autoencoder tell about photographs: deepsim posterior."""
