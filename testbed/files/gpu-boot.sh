: # GPU: none yet
