package lint

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// bannedWord is something no file of the repository contains.
type bannedWord struct {
	pattern *regexp.Regexp
	why     string
}

// bannedWords are written so that none matches its own line.
var bannedWords = []bannedWord{
	{regexp.MustCompile(`(^|[^\w.$}/])/(wor[k]|hom[e]|User[s])/\w`), "a path of somebody's machine"},
	{regexp.MustCompile(`\bprox[y]\.golang\.org|\bgopro[x]y\.`), "the name of a registry's host"},
	{regexp.MustCompile(`\b(TOD[O]|FIXM[E])\b`), "unfinished work; open an issue, or finish it"},
	{regexp.MustCompile(`(?i)\bgnu (affero )?general publi[c] license|\bbusiness source licens[e]`), "a licence that is not ours"},
}

// TestBannedWords looks into every text file, not only into Go.
func TestBannedWords(t *testing.T) {
	holds(t, "words", checkBannedWords)
}

func checkBannedWords(root string) ([]violation, error) {
	var found []violation
	err := eachFile(root, func(file string, content []byte) error {
		if bytes.IndexByte(content, 0) >= 0 {
			return nil // not a text
		}
		for i, line := range strings.Split(string(content), "\n") {
			for _, word := range bannedWords {
				if match := word.pattern.FindString(line); match != "" {
					found = append(found, violation{file, i + 1, strings.TrimSpace(match) + ": " + word.why})
				}
			}
		}
		return nil
	})
	return found, err
}
