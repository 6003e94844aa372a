package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/notes"
)

// daemonFlags are the flags of all daemons.
type daemonFlags struct {
	config   string
	logLevel string
}

func (d *daemonFlags) add(cmd *cobra.Command, level string) {
	cmd.Flags().StringVar(&d.config, "config", "", "a YAML file with the same settings; flags go before it")
	cmd.Flags().StringVar(&d.logLevel, "log-level", level, "what is logged to standard error: debug, info, warn or error")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	must(cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)))
}

// load applies the configuration file to the flags that were not given, and creates the logger.
func (d *daemonFlags) load(std streams, cmd *cobra.Command) (*slog.Logger, error) {
	if d.config != "" {
		data, err := readFile(std.in, d.config)
		if err != nil {
			return nil, err
		}
		if err := d.readConfig(data, cmd.LocalNonPersistentFlags()); err != nil {
			return nil, usageError{inFile(d.config, err)}
		}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.logLevel)); err != nil {
		return nil, usagef("--log-level: %q is none of debug, info, warn and error", d.logLevel)
	}
	return slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: level})), nil
}

// readConfig sets flags from the file's text: nodeTimeout is --node-timeout.
func (d *daemonFlags) readConfig(data []byte, flags *pflag.FlagSet) error {
	byKey := map[string]*pflag.Flag{}
	var known []string
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "config" && flag.Name != "help" {
			byKey[camelCase(flag.Name)] = flag
			known = append(known, camelCase(flag.Name))
		}
	})
	settings, err := manifest.ParseSettings(data, known)
	var mistakes manifest.Errors
	if err != nil && !errors.As(err, &mistakes) {
		return err
	}
	for _, setting := range settings {
		flag := byKey[setting.Name]
		if flag.Changed {
			continue
		}
		for _, value := range setting.Values {
			if err := flags.Set(flag.Name, value); err != nil {
				mistakes = append(mistakes, manifest.Error{Line: setting.Line, Message: fmt.Sprintf("%s: %q is not what it takes: %s", setting.Name, value, flag.Usage)})
			}
		}
	}
	if len(mistakes) > 0 {
		slices.SortStableFunc(mistakes, func(a, b manifest.Error) int { return a.Line - b.Line })
		return mistakes
	}
	return nil
}

func camelCase(flag string) string {
	words := strings.Split(flag, "-")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
	}
	return strings.Join(words, "")
}

// lockFolder locks a folder for this process. what is "zone" or "NodeManager".
func lockFolder(dir, what string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, plainPathError(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, plainPathError(err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner := make([]byte, 16)
		n, _ := file.ReadAt(owner, 0)
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("a %s runs in %s already (process %s); end it first, or choose another folder with --dir", what, dir, orDash(strings.TrimSpace(string(owner[:n]))))
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	_ = file.Truncate(0)
	_, _ = file.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return func() { _ = file.Close() }, nil
}

// keepNotes reads what an earlier start stored in the folder into value, or stores value.
func keepNotes(path string, value any) error {
	if !notes.Exist(path) {
		return writeNotes(path, value)
	}
	return readNotes(path, value)
}

func readNotes(path string, value any) error {
	err := notes.Read(path, value)
	if errors.Is(err, notes.ErrDamaged) {
		return fmt.Errorf("%s and its copy beside it were damaged; put them back from a backup, or delete both, and what ran here is not known any more", path)
	}
	return plainPathError(err)
}

func writeNotes(path string, value any) error { return plainPathError(notes.Write(path, value)) }

// newZoneName returns a new name, so that the containers of a machine's zones can be distinguished.
func newZoneName() string {
	raw := make([]byte, 3)
	_, _ = rand.Read(raw) // crypto/rand cannot fail
	return "local-" + hex.EncodeToString(raw)
}

// addressInUse adds advice to "bind: address already in use".
func addressInUse(err error, flag string) error {
	var op *net.OpError
	if errors.Is(err, syscall.EADDRINUSE) && errors.As(err, &op) {
		return fmt.Errorf("something else listens at %s already; end it, or choose another address with --%s", op.Addr, flag)
	}
	return err
}
