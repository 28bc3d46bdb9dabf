"""Files that are whole or not there, the record of what is done, and who may write."""
