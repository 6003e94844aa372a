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
	// maxWord is the longest argument or variable that the kernel accepts, and maxWords the limit of all together.
	maxWord  = 128<<10 - 1
	maxWords = 1 << 20
	// maxExposed is how many ports an image may expose.
	maxExposed = 1024
	// maxVolumes is how many volumes an image may have.
	maxVolumes = 1024
	// maxID is the largest user or group id that an engine accepts.
	maxID = 1<<31 - 1
)

// checkSettings refuses settings with which an engine cannot start or stop a container, and names the setting. Users,
// groups, files and folders are those of the image's layers.
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
				return settingError(words.word, "has %s, which contains a NUL; no argument or variable can", shortened(value))
			}
			if len(value) > maxWord {
				return settingError(words.word, "has %s of %d bytes; the kernel's limit is %d", shortened(value), len(value), maxWord)
			}
			total += len(value)
		}
	}
	if total > maxWords {
		return settingError("ENTRYPOINT, CMD and ENV", "are %d bytes long together; the limit is %d", total, maxWords)
	}
	for _, variable := range c.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return settingError("ENV", "has %s, which is not of the form NAME=VALUE", shortened(variable))
		}
	}
	return nil
}

func checkWorkingDir(dir string) error {
	switch {
	case dir == "":
		return nil
	case strings.ContainsRune(dir, 0):
		return settingError("WORKDIR", "is %s, which contains a NUL", shortened(dir))
	case !path.IsAbs(dir):
		return settingError("WORKDIR", "is %s, which is not an absolute path", shortened(dir))
	case len(dir) > maxLayerName:
		return settingError("WORKDIR", "is %d bytes long; the limit is %d", len(dir), maxLayerName)
	}
	for element := range strings.SplitSeq(dir, "/") {
		if len(element) > maxElement {
			return settingError("WORKDIR", "has %s, a folder's name of %d bytes; the limit is %d", shortened(element), len(element), maxElement)
		}
	}
	return nil
}

// CheckUser refuses, as the setting "user", a user or group that is not in the image's own files, if those were read. It
// fails with errdefs.ErrInvalidArgument.
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

// checkUser checks USER, USER:GROUP or numeric ids, as engines do. Key is the name of the setting.
func checkUser(key, text string, users, groups accounts) error {
	user, group, hasGroup := strings.Cut(text, ":")
	group, _, _ = strings.Cut(group, ":") // Engines ignore the rest.
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
		return fmt.Errorf("but the id of a %s must be 0 to %d", what, int64(maxID))
	case err == nil:
		return nil
	}
	if known.lacks(name) {
		return fmt.Errorf("but the image's %s has no %s %s", file, what, shortened(name))
	}
	return nil
}

func checkStopSignal(signal string) error {
	if signal == "" || isSignal(signal) {
		return nil
	}
	return settingError("STOPSIGNAL", "is %s, which is not a signal; use a name such as SIGQUIT, or a number from 1 to 64", shortened(signal))
}

// isSignal reports whether an engine knows the signal.
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

// checkVolumes refuses volumes that are not paths. checkPaths checks what they would hide.
func (c Config) checkVolumes() error {
	if len(c.Volumes) > maxVolumes {
		return settingError("VOLUME", "has more than %d paths", maxVolumes)
	}
	for _, volume := range c.Volumes {
		if volume == "" || strings.ContainsRune(volume, 0) {
			return settingError("VOLUME", "has %s, which is not a path", shortened(volume))
		}
		for element := range strings.SplitSeq(volume, "/") {
			if len(element) > maxElement {
				return settingError("VOLUME", "has %s, a folder's name of %d bytes; the limit is %d", shortened(element), len(element), maxElement)
			}
		}
	}
	return nil
}

// exposedPorts expands ports such as 80, 80/tcp and 8000-8002/udp, without duplicates.
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
			return nil, settingError("EXPOSE", "has %s, which is not a port; use 1 to 65535, followed by /tcp, /udp or /sctp", shortened(text))
		}
		if len(ports)+to-from >= maxExposed {
			return nil, settingError("EXPOSE", "has more than %d ports", maxExposed)
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

// shortened quotes a text that may be long.
func shortened(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
