"""What came back is checked: the gate, the tests, the criteria, the record of nodes. What is public is one room up."""
