package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
)

// TCP succeeds when a connection is accepted.
func TCP(address string) Check {
	return func(ctx context.Context) error {
		conn, err := dial(ctx, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Exec succeeds when run, which runs command inside the container, returns exit code 0.
func Exec(command []string, run func(ctx context.Context, command []string) (int, error)) Check {
	return func(ctx context.Context) error {
		code, err := run(ctx, command)
		if err != nil {
			return shortageOf(err)
		}
		switch code {
		case 0:
			return nil
		case 126, 127: // a shell's, for what cannot be run
			return fmt.Errorf("%s exited with code %d: is it there, and may it be executed?", command[0], code)
		}
		return fmt.Errorf("%s exited with code %d", command[0], code)
	}
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", address)
	if err != nil {
		if lacking := shortageOf(err); lacking != err {
			return nil, lacking
		}
		return nil, fmt.Errorf("connect to %s: %w", address, withoutAddresses(err))
	}
	return conn, nil
}

// shortage is the error of a probe that could not be made because this machine or process has run out of something.
type shortage struct{ of syscall.Errno }

func (l *shortage) Error() string { return l.of.Error() }

func (l *shortage) Unwrap() error { return errdefs.ErrUnavailable }

// IsShortage reports whether an error means that this machine or process has run out of something, such as file descriptors.
func IsShortage(err error) bool { return shortageOf(err) != err }

// shortageOf turns such an error into a shortage, and returns others as they are.
func shortageOf(err error) error {
	for _, number := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN,
	} {
		if errors.Is(err, number) {
			return &shortage{number}
		}
	}
	return err
}

// withoutAddresses is a network error without the addresses, which differ between connections.
func withoutAddresses(err error) error {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return number
	case errors.Is(err, io.EOF):
		return errors.New("the connection was closed without an answer")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTimeout
	}
	return err
}
