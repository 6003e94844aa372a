package spec

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
)

var (
	appName      = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	portName     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
	queueName    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,39}$`)
	nodeName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	resourceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._/-]{0,62}$`)
	plainPath    = regexp.MustCompile(`^/[A-Za-z0-9/_.+-]*$`)
	userName     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$`)
)

// CheckName returns why name cannot be the name of an app, a role, a zone, a framework or a companion, one sentence; nil if it can. The
// argument what says of what, with its article: "an app".
func CheckName(what, name string) error {
	if name == "" {
		return fmt.Errorf("the name of %s is empty; use lower-case letters, digits and \"-\", beginning with a letter", what)
	}
	if len(name) > MaxName {
		return fmt.Errorf("%s cannot be the name of %s: it has %d characters, but the limit is %d", quoted(name), what, len(name), MaxName)
	}
	if !appName.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of %s: a name has 1 to %d lower-case letters, digits and \"-\", and starts with a letter", name, what, MaxName)
	}
	if strings.HasSuffix(name, "-") {
		return fmt.Errorf("%q cannot be the name of %s: it ends with \"-\"", name, what)
	}
	return nil
}

// CheckQueueName returns why name cannot be the name of a queue or a lending contract, one sentence. The argument what is "a
// queue" or "a contract".
func CheckQueueName(what, name string) error {
	if queueName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s cannot be the name of %s: a name has 1 to %d letters, digits, \"-\" and \"_\", and starts with a letter", quoted(name), what, MaxName)
}

// CheckNodeName returns why name cannot be the name of a node, one sentence.
func CheckNodeName(name string) error {
	if nodeName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s cannot be the name of a node: a name has 1 to 63 letters, digits, \"-\", \"_\" and \".\", and starts with a letter or a digit", quoted(name))
}

func (c *checker) name(key, name string) {
	what := "an app"
	if key == "roles" {
		what = "a role"
	}
	if err := CheckName(what, name); err != nil {
		c.fail(key, "%v", err)
	}
}

// CheckPortName returns why name cannot be the name of a port, one sentence.
func CheckPortName(name string) error {
	if portName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("%s cannot be the name of a port: a name has 1 to %d lower-case letters, digits and \"-\", and starts with a letter", quoted(name), maxPortName)
}

// CheckEnvName returns why name cannot be the name of an environment variable, one sentence. It permits names that no shell accepts
// but programs use: Logging:Level, spring.port, 9P_VERSION.
func CheckEnvName(name string) error {
	switch {
	case name == "":
		return errors.New("the name of an environment variable is empty")
	case len(name) > maxText:
		return fmt.Errorf("%s cannot be the name of an environment variable: it has %d characters, but the limit is %d", quoted(name), len(name), maxText)
	}
	for _, r := range name {
		if r <= ' ' || r > '~' || r == '=' {
			return fmt.Errorf("%s cannot be the name of an environment variable: a name has printable ASCII characters, but no space and no \"=\"", quoted(name))
		}
	}
	return nil
}

// urlStart matches the part of a URL before its host, with or without the scheme.
var urlStart = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:)?//`)

// CheckPath returns why a health check cannot request a path, one sentence.
func CheckPath(text string) error {
	switch {
	case urlStart.MatchString(text):
		_, path, _ := strings.Cut(urlStart.ReplaceAllString(text, ""), "/")
		return fmt.Errorf("%s is not a path: a health check has no host here; write %s, and the port's name as \"port\"", quoted(text), quoted("/"+path))
	case !strings.HasPrefix(text, "/"):
		return fmt.Errorf("path must begin with \"/\", but is %s", quoted(text))
	case len(text) > MaxPath:
		return fmt.Errorf("path has %d characters, but the limit is %d", len(text), MaxPath)
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("path must have no blanks or control characters, but is %s", quoted(text))
	}
	return nil
}

// CheckPlainPath returns why a path cannot be written into the configuration of a balancer, one sentence.
func CheckPlainPath(text string) error {
	if !plainPath.MatchString(text) {
		return fmt.Errorf("%s is not an absolute path without blanks and special characters", quoted(text))
	}
	if short := path.Clean(text); short != text {
		return fmt.Errorf("%s is to be written as %s", quoted(text), quoted(short))
	}
	return nil
}

// checkUser accepts what engines accept: a name or number of a user, and after a ":" that of a group.
func checkUser(user string) error {
	parts := strings.Split(user, ":")
	if len(parts) > 2 || slices.ContainsFunc(parts, func(part string) bool { return !userName.MatchString(part) }) {
		return fmt.Errorf("user must be a name, a uid, or either with a group as in 1000:1000, but is %s", quoted(user))
	}
	for _, part := range parts {
		const most = 1<<31 - 1
		if strings.Trim(part, "0123456789") != "" {
			continue
		}
		if n, err := strconv.ParseUint(part, 10, 64); err != nil || n > most {
			return fmt.Errorf("user must be a name, or a number up to %d, but is %s", most, quoted(user))
		}
	}
	return nil
}

// plain checks a text that is only shown and compared, not passed to a program, and reports whether it is valid.
func (c *checker) plain(key, what, text string, most int) bool {
	switch {
	case len(text) > most:
		c.fail(key, "%s has %d characters, but the limit is %d", what, len(text), most)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		c.fail(key, "%s must be UTF-8 without control characters, but is %s", what, quoted(text))
	default:
		return true
	}
	return false
}

// CheckWords checks the words of a command that is to be run. It fails with errdefs.ErrInvalidArgument.
func CheckWords(words []string) error {
	for i, word := range words {
		why := passable(word)
		if why == "" && len(word) >= MaxWord {
			why = fmt.Sprintf("has %s, and Linux takes less than %s", resource.FormatBytes(int64(len(word))), resource.FormatBytes(MaxWord))
		}
		if why != "" {
			return fmt.Errorf("word %d of the command %s: %w", i+1, why, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func (c *checker) words(key string, words []string) {
	for i, word := range words {
		at := key + "." + strconv.Itoa(i)
		if why := passable(word); why != "" {
			c.fail(at, "an item of %s %s", key, why)
		} else if len(word) >= MaxWord {
			c.fail(at, "an item of %s has %s, and Linux takes less than %s; write it to a file of the image", key, resource.FormatBytes(int64(len(word))), resource.FormatBytes(MaxWord))
		}
	}
}

func (c *checker) checkEnv(env map[string]string) {
	names := make([]string, 0, len(env))
	for name := range env {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		key := []string{"env", name}
		if err := CheckEnvName(name); err != nil {
			c.failAt(key, "%v", err)
		} else if err := CheckEnvValue(name, env[name]); err != nil {
			c.failAt(key, "%v", err)
		}
	}
}

// CheckEnvValue returns why a variable cannot have a value, one sentence.
func CheckEnvValue(name, value string) error {
	if why := passable(value); why != "" {
		return fmt.Errorf("the value of %s in env %s", name, why)
	}
	if size := len(name) + 1 + len(value); size >= MaxWord {
		return fmt.Errorf("%s in env has %s with its name, and Linux takes less than %s; write it to a file of the image", name, resource.FormatBytes(int64(size)), resource.FormatBytes(MaxWord))
	}
	return nil
}

// passable describes why a text cannot be passed to a program; empty if it can.
func passable(text string) string {
	switch {
	case strings.ContainsRune(text, 0):
		return "has a NUL character, which no program can be given"
	case !utf8.ValidString(text):
		return "is not UTF-8"
	}
	return ""
}
