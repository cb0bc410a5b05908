"""The program that audits a checkpoint of any other program here."""
