"""Measures EventPy's Python package against its peers and against limits of this machine.

Run by `cargo xtask bench --python`, in an environment that has the package and its peers. Every
measurement has a consumer, which is this process, and producers, which are fresh interpreters.
`transport` is what a peer implements, one file each under `contenders`; `measure` runs the rounds;
`works` says who contends in what; `targets` holds the promised figures.

Dispatcher processes run this file too, so that all it needs is imported under the guard.
"""

if __name__ == "__main__":
    import sys

    from command import main

    sys.exit(main())
