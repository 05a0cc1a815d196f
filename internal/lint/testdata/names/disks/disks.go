package disks
