"""What every benchmark needs: a child process whose memory is watched, and one way to print what was found.

memory     how much memory a process and all it started hold now
children   run a command to its end and remember how much memory it held when
printing   command line, progress, tables, the JSON object on the last line
parts      the command of a benchmark that has parts, with targets
"""
