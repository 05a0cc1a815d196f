package util // want "says nothing"
