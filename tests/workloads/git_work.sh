# git: init, commit, branch, merge, rebase, clone, fetch, fsck, gc.
# workload: timeout=180
say() { printf '### %s\n' "$*"; }
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
export GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z'
git config --global user.name Someone; git config --global user.email someone@example.org
git config --global init.defaultBranch main; git config --global advice.detachedHead false
git config --global gc.auto 0

say init-and-commit
git init -q repo; cd repo
for i in $(seq 200); do mkdir -p d$((i % 10)); seq $i >d$((i % 10))/f$i; done
git add .; git commit -qm first; git rev-parse HEAD; git status --short | wc -l
for i in $(seq 10); do echo "change $i" >>d1/f1; git commit -qam "change $i"; done
git log --oneline | wc -l; git rev-parse HEAD; git show --stat --format=%s HEAD

say branch-merge-rebase
git checkout -qb side; echo side >side; git add side; git commit -qm side
git checkout -q main; echo main >main; git add main; git commit -qm main
git merge -q --no-edit side; git log --oneline --graph | head -4 | cut -c1-60
git checkout -qb other HEAD~1; echo other >other; git add other; git commit -qm other; git rebase -q main; git rev-parse HEAD
echo a >conflict; git add conflict; git commit -qm a; git checkout -q main; echo b >conflict; git add conflict; git commit -qm b
git merge other 2>&1 | grep CONFLICT; git checkout -q --theirs conflict; git add conflict; git commit -qm merged; cat conflict
git diff --stat HEAD~3 | tail -1; git blame d1/f1 | wc -l; git stash list | wc -l; git tag v1; git describe

say clone-and-fetch
cd ..; git clone -q repo clone; cd clone; git rev-parse HEAD; git branch -r | wc -l
git clone -q --bare ../repo ../bare.git; git remote add bare ../bare.git; git fetch -q bare
echo pushed >pushed; git add pushed; git commit -qm pushed; git push -q bare HEAD:main; git -C ../bare.git log -1 --format=%s main
git clone -q --depth 1 "file://$PWD/../repo" ../shallow; git -C ../shallow log --oneline | wc -l
git archive HEAD | tar t | wc -l

say fsck-and-gc
git fsck --full 2>/dev/null; echo "fsck $?"
git repack -adq; git prune-packed; git count-objects -v | grep -E '^(count|packs|in-pack)'; git fsck; echo "fsck $?"
git verify-pack .git/objects/pack/*.idx; echo "verify $?"
git bundle create -q ../b.bundle --all; git bundle verify -q ../b.bundle >/dev/null; echo "bundle $?"
git worktree add -q ../tree HEAD; ls ../tree | wc -l
