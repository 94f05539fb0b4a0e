;; Starts four threads, which wait until all have started; then each adds its argument to a sum and wakes the first,
;; which waits for all and prints a line.
(module
  (import "env" "memory" (memory 1 1 shared))
  (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (export "memory" (memory 0))
  (data (i32.const 16) "\40\00\00\00\10\00\00\00") ;; iovec: 16 bytes at 64
  (data (i32.const 64) "all four ended.\n")

  ;; 0: how many have ended; 4: the sum of the arguments; 8: whether all have started
  (func (export "wasi_thread_start") (param $id i32) (param $argument i32)
    (if (i32.or (i32.le_s (local.get $id) (i32.const 0)) (i32.ge_s (local.get $id) (i32.const 0x20000000)))
      (then unreachable))
    (block $go
      (loop $hold
        (br_if $go (i32.atomic.load (i32.const 8)))
        (drop (memory.atomic.wait32 (i32.const 8) (i32.const 0) (i64.const 20000000000)))
        (br $hold)))
    (drop (i32.atomic.rmw.add (i32.const 4) (local.get $argument)))
    (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))
    (drop (memory.atomic.notify (i32.const 0) (i32.const 1))))

  (func (export "_start") (local $i i32) (local $ended i32)
    (loop $more
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (if (i32.le_s (call $spawn (i32.mul (local.get $i) (i32.const 10))) (i32.const 0))
        (then (call $proc_exit (i32.const 2))))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 4))))
    (i32.atomic.store (i32.const 8) (i32.const 1))
    (drop (memory.atomic.notify (i32.const 8) (i32.const 4)))
    (block $done
      (loop $wait
        (local.set $ended (i32.atomic.load (i32.const 0)))
        (br_if $done (i32.eq (local.get $ended) (i32.const 4)))
        (drop (memory.atomic.wait32 (i32.const 0) (local.get $ended) (i64.const 20000000000)))
        (br $wait)))
    (if (i32.ne (i32.atomic.load (i32.const 4)) (i32.const 100))
      (then (call $proc_exit (i32.const 3))))
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 32)))))
