package images

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxWord is how long the kernel lets one argument or variable be, and maxWords all of them.
	maxWord  = 128<<10 - 1
	maxWords = 1 << 20
	// maxExposed is how many ports an image may name.
	maxExposed = 1024
	// maxVolumes is how many volumes an image may name.
	maxVolumes = 1024
	// maxID is the largest number of a user or group that an engine takes.
	maxID = 1<<31 - 1
)

// checkSettings refuses settings with which no engine starts a container, or with which it could not be stopped, by the
// setting's name. Users, groups, files and folders are those of the image's layers.
func (c Config) checkSettings(image *examination) error {
	for _, check := range []error{
		c.checkWords(), checkWorkingDir(c.WorkingDir), checkUser("the image's USER", c.User, image.users, image.groups), checkStopSignal(c.StopSignal), c.checkVolumes(),
	} {
		if check != nil {
			return check
		}
	}
	if _, err := exposedPorts(c.ExposedPorts); err != nil {
		return err
	}
	return c.checkPaths(image.root)
}

func (c Config) checkWords() error {
	total := 0
	for _, words := range []struct {
		word   string
		values []string
	}{{"ENTRYPOINT", c.Entrypoint}, {"CMD", c.Cmd}, {"ENV", c.Env}} {
		for _, value := range words.values {
			if strings.ContainsRune(value, 0) {
				return setting(words.word, "holds %s, with a NUL in it, which no program can be told", shortened(value))
			}
			if len(value) > maxWord {
				return setting(words.word, "holds %s of %d bytes, and the kernel passes on no more than %d", shortened(value), len(value), maxWord)
			}
			total += len(value)
		}
	}
	if total > maxWords {
		return setting("ENTRYPOINT, CMD and ENV", "are %d bytes long together, and may be %d", total, maxWords)
	}
	for _, variable := range c.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return setting("ENV", "holds %s, which is not of the form NAME=VALUE", shortened(variable))
		}
	}
	return nil
}

func checkWorkingDir(dir string) error {
	switch {
	case dir == "":
		return nil
	case strings.ContainsRune(dir, 0):
		return setting("WORKDIR", "is %s, with a NUL in it", shortened(dir))
	case !path.IsAbs(dir):
		return setting("WORKDIR", "is %s, which is not an absolute path", shortened(dir))
	case len(dir) > maxLayerName:
		return setting("WORKDIR", "is %d bytes long, and may be %d", len(dir), maxLayerName)
	}
	for element := range strings.SplitSeq(dir, "/") {
		if len(element) > maxElement {
			return setting("WORKDIR", "holds %s, a folder's name of %d bytes, and none may be longer than %d", shortened(element), len(element), maxElement)
		}
	}
	return nil
}

// CheckUser refuses, as the setting "user", a user or group that the image's own files do not name, as far as they can be
// looked at. It fails with errdefs.ErrInvalidArgument.
func (c Config) CheckUser(text string) error {
	if c.files == nil {
		return nil
	}
	return checkUser("user", text, c.files.users, c.files.groups)
}

// CheckWorkingDir refuses, as the setting "workingDir", a path at which a container of the image cannot have a folder, as far as
// the image's files can be looked at. It fails with errdefs.ErrInvalidArgument.
func (c Config) CheckWorkingDir(dir string) error {
	if c.files == nil || c.files.root == nil || dir == "" {
		return nil
	}
	if err := c.files.root.withEngineFiles().checkPath(dir, noWorkingDir); err != nil {
		return invalid("workingDir is %s, %v", shortened(dir), err)
	}
	return nil
}

// checkUser reads USER, USER:GROUP or numbers of them, as engines do. Key is what the setting is called.
func checkUser(key, text string, users, groups accounts) error {
	user, group, hasGroup := strings.Cut(text, ":")
	group, _, _ = strings.Cut(group, ":") // Engines pass over what comes behind.
	err := checkAccount(user, users, "user", "/etc/passwd")
	if err == nil && hasGroup {
		err = checkAccount(group, groups, "group", "/etc/group")
	}
	if err != nil {
		return invalid("%s is %s, %w", key, shortened(text), err)
	}
	return nil
}

func checkAccount(name string, known accounts, what, file string) error {
	if name == "" {
		return nil
	}
	number, err := strconv.ParseInt(name, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (number < 0 || number > maxID):
		return fmt.Errorf("and the number of a %s must be 0 to %d", what, int64(maxID))
	case err == nil:
		return nil
	}
	if known.lacks(name) {
		return fmt.Errorf("but the image's %s names no %s %s", file, what, shortened(name))
	}
	return nil
}

func checkStopSignal(signal string) error {
	if signal == "" || isSignal(signal) {
		return nil
	}
	return setting("STOPSIGNAL", "is %s, which is not a signal; say its name, as in SIGQUIT, or a number of 1 to 64", shortened(signal))
}

// isSignal reports whether an engine can send what an image calls a signal.
func isSignal(text string) bool {
	if number, err := strconv.Atoi(text); err == nil {
		return number >= 1 && number <= 64
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for _, realTime := range []struct {
		first string
		most  int
	}{{"RTMIN+", 15}, {"RTMAX-", 14}} {
		if offset, ok := strings.CutPrefix(name, realTime.first); ok {
			number, err := strconv.Atoi(offset)
			return err == nil && number >= 1 && number <= realTime.most && offset == strconv.Itoa(number)
		}
	}
	return slices.Contains([]string{"RTMIN", "RTMAX", "CLD", "IOT", "POLL"}, name) || unix.SignalNum("SIG"+name) != 0
}

// checkVolumes refuses volumes at what is no path. What they would hide is looked at with the image's files.
func (c Config) checkVolumes() error {
	if len(c.Volumes) > maxVolumes {
		return setting("VOLUME", "names more than %d paths", maxVolumes)
	}
	for _, volume := range c.Volumes {
		if volume == "" || strings.ContainsRune(volume, 0) {
			return setting("VOLUME", "holds %s, which is not a path", shortened(volume))
		}
		for element := range strings.SplitSeq(volume, "/") {
			if len(element) > maxElement {
				return setting("VOLUME", "holds %s, a folder's name of %d bytes, and none may be longer than %d", shortened(element), len(element), maxElement)
			}
		}
	}
	return nil
}

// exposedPorts writes out ports such as 80, 80/tcp and 8000-8002/udp, each once.
func exposedPorts(texts []string) ([]string, error) {
	type port struct {
		number   int
		protocol string
	}
	ports := map[port]bool{}
	for _, text := range texts {
		numbers, protocol, ok := strings.Cut(strings.ToLower(text), "/")
		if !ok {
			protocol = "tcp"
		}
		first, last, isRange := strings.Cut(numbers, "-")
		from, err := portNumber(first)
		to := from
		if isRange && err == nil {
			to, err = portNumber(last)
		}
		if err != nil || to < from || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
			return nil, setting("EXPOSE", "holds %s, which is not a port; say 1 to 65535, with /tcp, /udp or /sctp behind it", shortened(text))
		}
		if len(ports)+to-from >= maxExposed {
			return nil, setting("EXPOSE", "names more than %d ports", maxExposed)
		}
		for number := from; number <= to; number++ {
			ports[port{number, protocol}] = true
		}
	}
	sorted := make([]port, 0, len(ports))
	for one := range ports {
		sorted = append(sorted, one)
	}
	slices.SortFunc(sorted, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
	})
	var all []string
	for _, one := range sorted {
		all = append(all, fmt.Sprintf("%d/%s", one.number, one.protocol))
	}
	return all, nil
}

func portNumber(text string) (int, error) {
	number, err := strconv.ParseUint(text, 10, 16)
	if err == nil && number == 0 {
		err = strconv.ErrRange
	}
	return int(number), err
}

// shortened quotes a text of unknown length.
func shortened(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
