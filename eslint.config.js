import tseslint from 'typescript-eslint';

const bans = [
  { selector: 'TSEnumDeclaration', message: 'Use an `as const` union.' },
  { selector: 'ExportDefaultDeclaration', message: 'Export by name.' },
];

export default tseslint.config(
  { ignores: ['dist/', 'dist-*/', 'node_modules/', '.nodes/'] },
  {
    files: ['lib/**/*.ts', 'test/**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      'no-console': 'error',
      'no-restricted-syntax': ['error', ...bans],
      eqeqeq: 'error',
      // Prettier sees to the code's width, and leaves comments alone.
      'max-len': ['error', { code: 1000, comments: 100, ignoreUrls: true }],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
    },
  },
  {
    // chai's `expect(x).to.be.true` is an expression; scripts people run by hand talk to the terminal.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unused-expressions': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
);
