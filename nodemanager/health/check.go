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

// TCP passes when a connection is accepted.
func TCP(address string) Check {
	return func(ctx context.Context) error {
		conn, err := dial(ctx, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Exec passes when run, which runs command inside the container, gives exit code 0.
func Exec(command []string, run func(ctx context.Context, command []string) (int, error)) Check {
	return func(ctx context.Context) error {
		code, err := run(ctx, command)
		if err != nil {
			return ours(err)
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
		if lacking := ours(err); lacking != err {
			return nil, lacking
		}
		return nil, fmt.Errorf("connect to %s: %w", address, plain(err))
	}
	return conn, nil
}

// lack is an error of a probe that could not be made because this machine or process lacks something.
type lack struct{ of syscall.Errno }

func (l *lack) Error() string { return l.of.Error() }

func (l *lack) Unwrap() error { return errdefs.ErrUnavailable }

// Lacks reports whether an error means that this machine or process has run out of something, as file descriptors.
func Lacks(err error) bool { return ours(err) != err }

// ours turns an error that means so into a lack, and returns others as they are.
func ours(err error) error {
	for _, number := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EAGAIN,
	} {
		if errors.Is(err, number) {
			return &lack{number}
		}
	}
	return err
}

// plain is an error of the network without the addresses, which change with every connection.
func plain(err error) error {
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
